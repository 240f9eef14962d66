"""Access decisions: peers, caller tokens, call policy, daily budgets."""
