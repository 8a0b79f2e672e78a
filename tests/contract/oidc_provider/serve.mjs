// A real OpenID Connect issuer (npm `oidc-provider`) on a free loopback port, until its standard input ends.
//
// Says its issuer URL on the first line of its output. A line `rotate` on its input gives it another key, which takes
// the place of the old one; it answers `rotated`. The keys, and the client's secret, are made up at every start.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

console.info = console.error; // the package's notices; our output is for the test
const { Provider } = await import("oidc-provider");
const secret = randomBytes(24).toString("hex");

const key = () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "ES256", kid: randomBytes(8).toString("hex") };
};

const provider = (issuer) =>
  new Provider(issuer, {
    jwks: { keys: [key()] },
    cookies: { keys: [secret] },
    clients: ["agent", "other-agent"].map((id) => ({
      client_id: id,
      client_secret: secret,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: "ES256",
    })),
    extraTokenClaims: () => ({ team: "billing" }),
    features: {
      devInteractions: { enabled: false },
      dPoP: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // The resource `urn:shorthold` asks for the audience `shorthold`, and `urn:long:…` for a longer life.
        getResourceServerInfo: (_context, resource) => ({
          scope: "ask",
          audience: resource.split(":").at(-1),
          accessTokenTTL: resource.startsWith("urn:long:") ? 24 * 3600 : 300,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });

let handle;
const server = createServer((request, response) => handle(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  handle = provider(issuer).callback();
  console.log(JSON.stringify({ issuer, secret }));
  createInterface({ input: process.stdin })
    .on("line", () => {
      handle = provider(issuer).callback();
      console.log("rotated");
    })
    .on("close", () => process.exit(0));
});
