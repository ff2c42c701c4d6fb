// validate.mjs FILE...: objects of the Prometheus operator in *.yaml, dashboards in *.json, against the schemas of their makers. Runs in the
// directory where package.json's packages are installed. Other kinds are for kubernetes-validate, which knows them.
//
// The operator's types are read twice: by the validator that was made from them, which knows the patterns but lets unknown keys
// pass, and as TypeScript, which knows every key.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(pathToFileURL(process.cwd() + '/'));
const Ajv = require('ajv').default;
const yaml = require('js-yaml');
const ajv = new Ajv({ allErrors: true, strict: false });
const MODELS = 'node_modules/@kubernetes-models/prometheus-operator/monitoring.coreos.com';

const compiled = new Map();
function schema(path, type) {
  if (!compiled.has(type)) {
    const file = `${type}.schema.json`;
    if (!existsSync(file)) {
      execFileSync('node_modules/.bin/ts-json-schema-generator', ['--path', path, '--type', type, '--no-type-check', '-o', file]);
    }
    compiled.set(type, ajv.compile(JSON.parse(readFileSync(file))));
  }
  return compiled.get(type);
}

function problems(validate, value) {
  return validate(value) ? [] : validate.errors.slice(0, 5).map((error) => `${error.instancePath} ${error.message} ${JSON.stringify(error.params)}`);
}

async function operator(object) {
  const version = object.apiVersion.split('/')[1];
  const path = `${MODELS}/${version}/${object.kind}`;
  if (!existsSync(`${path}.js`)) return [`no kind ${object.kind} in ${object.apiVersion}`];
  const { [object.kind]: Kind } = await import(`@kubernetes-models/prometheus-operator/monitoring.coreos.com/${version}/${object.kind}`);
  const wrong = problems(schema(`${path}Spec.d.ts`, `I${object.kind}Spec`), object.spec);
  try {
    new Kind(object).validate();
  } catch (error) {
    wrong.push(error.message);
  }
  return wrong;
}

let failed = 0, seen = 0;
for (const file of process.argv.slice(2)) {
  const text = readFileSync(file, 'utf8');
  const results = [];
  if (file.endsWith('.json')) {
    results.push([file, problems(schema('node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts', 'Dashboard'), JSON.parse(text))]);
  } else {
    for (const object of yaml.loadAll(text)) {
      if (object?.apiVersion?.startsWith('monitoring.coreos.com/')) results.push([`${file} ${object.kind}`, await operator(object)]);
    }
  }
  for (const [what, wrong] of results) {
    seen += 1;
    failed += wrong.length > 0;
    for (const line of wrong) console.error(`${what}: ${line}`);
  }
}
console.log(`${seen} objects, ${failed} of them not valid`);
process.exit(failed > 0 ? 1 : 0);
