"""From files, folders, the Hub or memory to rows."""
