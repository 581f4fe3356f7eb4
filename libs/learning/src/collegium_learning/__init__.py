"""Learning: what is learned from outcomes, and what is decided by it. Pure.

Each room has two sides: fitting, which one service does beside the work, and applying, which another does within it.
What passes between them is a msgspec structure in a versioned bucket, never pickled objects. One rule: applying needs
numpy alone, so that a service that only decides never loads what it takes to learn.
"""
