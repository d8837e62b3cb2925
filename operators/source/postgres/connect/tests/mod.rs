//! Against a real PostgreSQL, and against servers that lie.
