"""The checkpoint: its format, and the rules by which its content is trusted."""
