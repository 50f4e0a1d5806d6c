import eslint from "@eslint/js";
import tseslint from "typescript-eslint";

// homestead's own rules, without those about Pulumi: this is a package of its own.
export default tseslint.config({ ignores: ["node_modules/"] }, eslint.configs.recommended, {
  files: ["**/*.ts"],
  extends: [tseslint.configs.recommendedTypeChecked, tseslint.configs.stylistic],
  languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
  rules: {
    "@typescript-eslint/no-explicit-any": "error",
    "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
    "@typescript-eslint/prefer-nullish-coalescing": ["error", { ignorePrimitives: { boolean: true } }],
    "@typescript-eslint/no-deprecated": "error",
    "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
    "@typescript-eslint/consistent-type-definitions": "off",
    eqeqeq: "error",
  },
});
