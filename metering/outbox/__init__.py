"""The outbox: mails and webhook calls, recorded with what they tell of, sent by the worker, each once."""
