"""Routing policies: from judged tasks to a policy for each tenant, compared before it goes live, and taken back at
will.

Pure: ``decided`` (what an event tells of a choice), ``fitting`` (a policy and whether it goes live), ``views`` (a
policy as operators see it). ``decided_store`` and ``policy_store`` are the SQL, ``gathering`` makes lessons of rows,
``publishing`` writes the bucket, ``rounds`` is the step of a round of learning. One rule: a tenant's policy is learned
from that tenant's tasks alone; what all tenants share are medians of their means, of three tenants at least.
"""
