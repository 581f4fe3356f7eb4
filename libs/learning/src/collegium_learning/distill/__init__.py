"""What is learned from: choosing among verified samples, and writing them as training data. Pure.

``selecting`` decides which samples are worth training on, ``tries`` what students know already, ``evaluating`` what
must not be trained on, ``soft`` makes soft targets, ``lines`` writes all of it in the formats of fine-tuning services.
One rule: what is held out is never trained on, and nothing that nearly equals it is either.
"""
