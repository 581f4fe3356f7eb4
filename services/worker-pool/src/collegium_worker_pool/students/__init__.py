"""Students that live in the workers: heads that answer by themselves, prompts that come first."""
