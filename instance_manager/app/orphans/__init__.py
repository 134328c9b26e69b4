"""Finding orphans: instances that run although nothing owns them, on one or several instance managers."""
