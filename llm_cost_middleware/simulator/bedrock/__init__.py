"""Amazon Bedrock's runtime: ``/model/{modelId}/invoke``, ``/converse``, and their streams, for Claude.

Sources: the service model ``bedrock-runtime/2023-09-30`` of botocore 1.44 (operations, shapes, errors and their
statuses), the User Guide's pages "Anthropic Claude Messages API", "Use cross-Region inference profiles" and "Prompt
caching", and Signature Version 4 as botocore's own signer writes it.
"""
