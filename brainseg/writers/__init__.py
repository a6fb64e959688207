"""Everything that brainseg writes to disk; each file appears whole or not at all (`atomic.replacing`)."""
