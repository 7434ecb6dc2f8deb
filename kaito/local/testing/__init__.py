"""The embedded cluster without models: real processes that cost next to nothing, for tests and load figures."""
