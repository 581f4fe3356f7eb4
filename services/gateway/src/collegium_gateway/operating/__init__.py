"""The doors of operators and of whoever reads reports; what is recorded of their acts."""
