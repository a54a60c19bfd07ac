// The official TypeScript SDKs as an agent would use them: list, call, follow progress, be denied.
//
// usage: client.mjs MODE (http URL | stdio COMMAND [ARGUMENT...])
//   MODE: 2026-07-28 for the SDK of that revision, legacy for the older one, which speaks in sessions
//
// Prints one JSON object of what it saw; whoever started it judges that.
import process from 'node:process';

const [mode, road, ...words] = process.argv.slice(2);
const options = { timeout: 30_000 };

async function modern() {
  const sdk = await import('@modelcontextprotocol/client');
  const { StdioClientTransport } = await import('@modelcontextprotocol/client/stdio');
  const negotiation = { versionNegotiation: { mode: { pin: mode } } };
  return {
    client: new sdk.Client({ name: 'tests', version: '1' }, negotiation),
    Http: sdk.StreamableHTTPClientTransport,
    Stdio: StdioClientTransport,
  };
}

async function legacy() {
  const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
  const http = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
  const stdio = await import('@modelcontextprotocol/sdk/client/stdio.js');
  return {
    client: new Client({ name: 'tests', version: '1' }),
    Http: http.StreamableHTTPClientTransport,
    Stdio: stdio.StdioClientTransport,
  };
}

const said = (result) => ({
  isError: result.isError === true,
  text: result.content.map((block) => block.text ?? '').join(''),
});

const { client, Http, Stdio } = await (mode === 'legacy' ? legacy() : modern());
const transport =
  road === 'http' ? new Http(new URL(words[0])) : new Stdio({ command: words[0], args: words.slice(1) });
await client.connect(transport, options);

// The older SDK has a schema between the parameters and the options.
const call = (name, args, more = {}) => {
  const params = { name, arguments: args };
  const all = { ...options, ...more };
  return mode === 'legacy' ? client.callTool(params, undefined, all) : client.callTool(params, all);
};

const listed = await client.listTools(undefined, options);
const balance = await call('account_balance', { account: '7' });
const progress = [];
const onprogress = (step) => progress.push(step.progress);
const slow = await call('slow_progress', { steps: 3 }, { onprogress });
const denied = await call('payments_refund', { payment: '1', amount: '5' });
const resource = await client.readResource({ uri: 'bank://rates' }, options);
const prompt = await client.getPrompt({ name: 'complaint' }, options);
const version =
  mode === 'legacy' ? (transport.protocolVersion ?? 'unknown') : client.getNegotiatedProtocolVersion();

console.log(
  JSON.stringify({
    version,
    tools: listed.tools.map((tool) => tool.name).sort(),
    balance: said(balance),
    slow: said(slow),
    progress,
    denied: said(denied),
    resource: resource.contents[0].text,
    prompt: prompt.messages[0].content.text,
  }),
);
await client.close();
