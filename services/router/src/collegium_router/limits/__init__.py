"""What bounds how much runs at once: permits, slices of models and pools, and models' own quotas."""
