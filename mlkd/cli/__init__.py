"""The console scripts: commands, help and exit codes."""
