"""What begins later, or again and again."""
