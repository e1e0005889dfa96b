// A client of MCP with the official package for Tasks. One command, one line of JSON on stdout.
//   call URL TOOL ARGUMENTS    starts a task and prints its reference
//   resume URL REFERENCE       polls the task to its end, answers what it asks, prints the result
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { createTaskSessionFromClient, resultFromTaskOutcome } from "@modelcontextprotocol/ext-tasks/client";

const [command, url, ...rest] = process.argv.slice(2);
const clientInfo = { name: "peer", version: "1" };
const protocolVersion = "2026-07-28";
const clientCapabilities = { elicitation: { form: {} } };

let number = 0;

async function dispatch(request, options) {
  const name = request.params?.taskId ?? request.params?.name;
  const answer = await fetch(url, {
    method: "POST",
    signal: options?.signal,
    headers: {
      "Content-Type": "application/json",
      Accept: "application/json, text/event-stream",
      "MCP-Protocol-Version": protocolVersion,
      "Mcp-Method": request.method,
      ...(name === undefined ? {} : { "Mcp-Name": name }),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: ++number, ...request }),
  });
  const text = await answer.text();
  const message = JSON.parse(text.startsWith("{") ? text : text.match(/^data: ?(.*)$/m)[1]);
  return "error" in message ? { kind: "error", error: message.error } : { kind: "result", result: message.result };
}

const client = new Client(clientInfo, { capabilities: clientCapabilities, versionNegotiation: { mode: "auto" } });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const session = createTaskSessionFromClient(client, {
  endpointId: "shop",
  rawDispatch: dispatch,
  v2RequestFraming: { protocolVersion, clientInfo, clientCapabilities },
  onInputRequest: async (request) => {
    console.error(JSON.stringify(request));
    return { action: "accept", content: { size: 7, answer: "red" } };
  },
});
if (command === "call") {
  const execution = await session.callTool(rest[0], JSON.parse(rest[1]));
  console.log(JSON.stringify(execution.serializeReference()));
} else {
  const execution = await session.resumeTask(JSON.parse(rest[0]));
  const { outcome } = await execution.settle();
  console.log(JSON.stringify(resultFromTaskOutcome(outcome)));
}
process.exit(0);
