"""The official Python SDK as it comes, with nothing said about revisions: lists the tools and calls one.

usage: first_call.py TOOL ARGUMENTS COMMAND [ARGUMENT...]      ARGUMENTS: a JSON object

Prints one JSON object of what it saw; whoever started it judges that.
"""

import asyncio
import json
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters


async def main():
    tool, arguments, command, *words = sys.argv[1:]
    server = StdioServerParameters(command=command, args=words)
    async with Client(server, read_timeout_seconds=30) as client:
        listed = await client.list_tools()
        called = await client.call_tool(tool, json.loads(arguments))
        saw = {
            "version": client.protocol_version,
            "tools": [tool.name for tool in listed.tools],
            "text": called.content[0].text,
        }
        print(json.dumps(saw))


asyncio.run(main())
