"""Models by name: which provider answers, Ollama, OpenAI-compatible servers, fallback.

Protocols and providers belong here, and they run without DBOS. Retries, limits and recording of model calls belong in
`durable/steps/`.
"""
