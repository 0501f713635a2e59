"""Running a script on something: slots of this machine, and later clusters. Knows tickets, never jobs or the store."""
