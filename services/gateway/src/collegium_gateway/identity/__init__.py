"""Who asks: keys, tokens, the tenant and project behind them, and what they may do."""
