// The official TypeScript SDKs as they come, with nothing said about revisions: list the tools and call one.
//
// usage: first_call.mjs SDK TOOL ARGUMENTS COMMAND [ARGUMENT...]
//   SDK: client for the newer, sdk for the older; ARGUMENTS: a JSON object
//
// Prints one JSON object of what it saw; whoever started it judges that.
import process from 'node:process';

const [sdk, name, args, command, ...words] = process.argv.slice(2);
const [{ Client }, { StdioClientTransport }] =
  sdk === 'client'
    ? [await import('@modelcontextprotocol/client'), await import('@modelcontextprotocol/client/stdio')]
    : [
        await import('@modelcontextprotocol/sdk/client/index.js'),
        await import('@modelcontextprotocol/sdk/client/stdio.js'),
      ];

const client = new Client({ name: 'tests', version: '1' });
await client.connect(new StdioClientTransport({ command, args: words }));
const listed = await client.listTools();
const called = await client.callTool({ name, arguments: JSON.parse(args) });
const tools = listed.tools.map((tool) => tool.name);
console.log(JSON.stringify({ server: client.getServerVersion(), tools, text: called.content[0].text }));
await client.close();
