"""The official Python SDK as an agent would use it: lists, calls, follows progress, is denied.

usage: client.py MODE (http URL | stdio COMMAND [ARGUMENT...])      MODE: 2026-07-28, or legacy for sessions

Prints one JSON object of what it saw; whoever started it judges that.
"""

import asyncio
import json
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters


def said(result):
    text = "".join(getattr(block, "text", "") for block in result.content)
    return {"isError": bool(result.is_error), "text": text}


async def main():
    mode, road, *words = sys.argv[1:]
    server = words[0] if road == "http" else StdioServerParameters(command=words[0], args=words[1:])
    progress = []

    async def follow(done, total, message):
        progress.append(done)

    async with Client(server, mode=mode, read_timeout_seconds=30) as client:
        listed = await client.list_tools()
        balance = await client.call_tool("account_balance", {"account": "7"})
        slow = await client.call_tool("slow_progress", {"steps": 3}, progress_callback=follow)
        denied = await client.call_tool("payments_refund", {"payment": "1", "amount": "5"})
        resource = await client.read_resource("bank://rates")
        prompt = await client.get_prompt("complaint")
        print(
            json.dumps(
                {
                    "version": client.protocol_version,
                    "tools": sorted(tool.name for tool in listed.tools),
                    "balance": said(balance),
                    "slow": said(slow),
                    "progress": progress,
                    "denied": said(denied),
                    "resource": resource.contents[0].text,
                    "prompt": prompt.messages[0].content.text,
                }
            )
        )


asyncio.run(main())
