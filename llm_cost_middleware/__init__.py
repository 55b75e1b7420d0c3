"""Route, cap, retry, cache and book every Claude and OpenAI call."""
