"""Platforms: a provider's models under other prices, names, errors and limits, one package each.

A platform (Azure, Bedrock, Vertex) sends the requests of a provider to another house. It reads and writes bodies as
that provider does and may import it; what differs it states itself:

- the names of models and deployments, and the provider's model behind each;
- prices, where the platform sets its own, and the regions they hold in;
- the class of its SDK's clients, its error codes, and whether a refused request was billed;
- its limits: output caps, cache abilities, batch and stream support.

Until a platform has its package here, hosts report its clients as not governed.

To add a platform:

1. Write a package beside this file. The import contracts (``tests/test_house_rules.py``) fail if a provider, another
   platform or the simulator knows it, or if it imports an SDK.
2. Let each host recognise the platform's clients: until then ``tests/integrations/sdk/test_sync.py`` and
   ``tests/integrations/langchain/test_money.py`` hold that they are reported as not governed, and fail when they are
   suddenly taken for the provider's.
3. Give its models prices: a call without a price is refused before it is sent.
"""
