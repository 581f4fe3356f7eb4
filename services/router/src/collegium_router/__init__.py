"""The router: owns INGRESS shards, plans each task, dispatches its attempts, settles what expires in the queue.

It never calls a model. Decisions are values made in pure rooms (roster, plan); queue and dispatch carry them out.
"""
