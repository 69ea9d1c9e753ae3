"""Generated code of the version 1 schema."""
