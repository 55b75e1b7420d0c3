"""Hosts, one package each: LangChain, LiteLLM, and the SDKs of the providers. They do not know each other."""
