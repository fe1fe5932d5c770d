"""What a user types and reads: options, commands, files, exit codes. The only room that prints."""
