"""What earlier searches of the user found, as a starting point of the next one."""
