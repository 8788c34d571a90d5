"""The checkpoint: its format, and the checks of an untrusted one."""
