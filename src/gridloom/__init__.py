"""gridloom."""
