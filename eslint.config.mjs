import eslint from "@eslint/js";
import pulumi from "@pulumi/eslint-plugin";
import tseslint from "typescript-eslint";

export default tseslint.config(
  // test/standin is a package of its own with its own checks.
  { ignores: ["node_modules/", "out/", "coverage/", ".state/", "test/standin/", "test/golden/"] },
  eslint.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommendedTypeChecked, tseslint.configs.stylistic],
    plugins: { "@pulumi": pulumi },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      // An Output in a template string prints "Calling [toString] on an [Output<T>]…" into a manifest.
      "@pulumi/no-output-in-template-literal": "error",
      "@pulumi/no-output-instance-in-template-literal": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/prefer-nullish-coalescing": ["error", { ignorePrimitives: { boolean: true } }],
      "@typescript-eslint/consistent-type-imports": ["error", { disallowTypeAnnotations: false }],
      "@typescript-eslint/no-deprecated": "error",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      // A unit such as `${seconds}s` is no mistake.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // Discriminated shapes read better as types.
      "@typescript-eslint/consistent-type-definitions": "off",
      eqeqeq: "error",
      "no-console": "off",
    },
  },
  {
    files: ["**/*.{mjs,cjs}"],
    languageOptions: {
      globals: Object.fromEntries(
        ["__dirname", "process", "performance", "require", "URL", "Buffer", "fetch", "console"].map((name) => [
          name,
          "readonly",
        ]),
      ),
    },
  },
);
