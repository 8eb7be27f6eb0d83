"""Where state lives: the protocol every store keeps, and its implementations."""
