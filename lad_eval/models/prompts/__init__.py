"""Prompts: the chat message and its template, the date it prints, its control tokens, and checks of prompts before a run."""
