"""Models behind a server that speaks OpenAI's chat completions: vLLM, SGLang, LMDeploy, `transformers serve`, hosted services.

address, client   the server's address and key; requests with retries
faults            what failed requests mean, and the cures
messages          requests as messages, images as PNG
answers           replies, candidates' log-probabilities and tokens in the server's answers
parallel          several requests at once
model             the model class
"""
