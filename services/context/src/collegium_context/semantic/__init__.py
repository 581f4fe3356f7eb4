"""The semantic cache: whether an answer that stands is the answer to another question, and what is done about it.

Here are the decisions, pure: words and vetoes, features, the learned risk, the policy. One rule: nothing here knows a
tenant; whoever asks compares entries of one scope only.
"""
