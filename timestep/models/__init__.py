"""Models by name: which provider answers, Ollama, OpenAI-compatible servers, fallback."""
