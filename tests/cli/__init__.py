"""The commands of ``flask qconsume``."""
