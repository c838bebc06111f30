"""Music: a recurrent model of piano rolls that continues or composes pieces."""
