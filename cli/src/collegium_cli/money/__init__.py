"""What things cost: billing, reports, prices, quotas."""
