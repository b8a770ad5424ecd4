"""The default law, whose validation domains lend strength to one another."""
