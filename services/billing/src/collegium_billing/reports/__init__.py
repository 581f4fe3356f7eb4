"""What is told of the books: usage, the request log, invoices, and alerts of budgets."""
