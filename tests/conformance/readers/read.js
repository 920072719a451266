// Node's HTTP server (llhttp): answers each whole request with what it found.
// usage: read.js SOCKET
const server = require("node:http").createServer({ keepAliveTimeout: 0, requestTimeout: 0 });
server.maxRequestsPerSocket = 0;
server.on("request", (request, response) => {
  request.resume();
  request.on("end", () => {
    response.setHeader("x-seen", `${request.method} ${request.url}`);
    response.end();
  });
});
server.on("checkContinue", (request, response) => server.emit("request", request, response));
server.on("clientError", (error, socket) => socket.end(`HTTP/1.1 400 Bad Request\r\nrefused: ${error.code}\r\n\r\n`));
server.listen(process.argv[2]);
