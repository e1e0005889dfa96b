"""What agents' entries, promises and workflows are called: written by `outlive.agents`, read by `outlive.views`.

Persisted: never to change.
"""

MODEL = ("model", "model.stream")  # a request, and one whose answer is streamed
TOOL, APPROVAL, QUESTION = "tool", "approval", "question"  # before a colon and the name of the tool
AGENT, CHAT = "agent", "chat"  # before a dot and a name, in the name of a workflow; a chat's topic, too
