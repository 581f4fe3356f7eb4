"""The books: what every call cost and every task is charged, as rows, sums and double entry, and the laws they keep."""
