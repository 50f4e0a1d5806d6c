# homestead:owner-account v1
# frozen_string_literal: true

# Sets who may register, and makes the owner's account, or sees that it is what it must be. Run by homestead's owner Job:
#
#   OWNER_USERNAME=… OWNER_EMAIL=… OWNER_PASSWORD=… OWNER_REGISTRATIONS=none|approved bin/rails runner owner-account.rb
#
# Why not `tootctl accounts create`: it makes up a password and prints it into a log, it asks the mail domain's DNS, and a second run fails.
#
# Prints `created` or `exists`. May be run at any time, any number of times, also by two Jobs at once. Never changes an existing password or
# e-mail address, and never enables an account that someone disabled. Writes nothing when nothing has to change.
#
# Exit codes: 0 done; 2 a variable is missing or has a value Mastodon does not accept; 3 the name or the address belongs to someone else;
# 4 the database is not ready (no schema, no seeds, not reachable): try again. Anything else is a fault of this script.
#
# Written for Mastodon 4.6, after lib/mastodon/cli/accounts.rb.

module HomesteadOwner
  ROLE = 'Owner'

  class Stop < StandardError
    attr_reader :code

    def initialize(code, message)
      super(message)
      @code = code
    end
  end

  class << self
    def call(env)
      username, email, password = read(env)
      open_registrations(env.fetch('OWNER_REGISTRATIONS', 'none'))
      role = UserRole.find_by(name: ROLE)
      raise Stop.new(4, "the database is not ready: it has no role named #{ROLE} (was it seeded?)") if role.nil?

      account = Account.find_local(username)
      return ensure_owner(account, role) unless account.nil?

      create(username, email, password, role)
    rescue ActiveRecord::RecordNotUnique
      # Another Job was faster; what it made is what this one wants.
      ensure_owner(Account.find_local!(username), role)
    end

    private

    def read(env)
      values = %w(OWNER_USERNAME OWNER_EMAIL OWNER_PASSWORD).index_with { |name| env[name].to_s }
      values['OWNER_USERNAME'] = values['OWNER_USERNAME'].strip
      values['OWNER_EMAIL'] = values['OWNER_EMAIL'].strip
      missing = values.select { |_, value| value.empty? }.keys
      raise Stop.new(2, "not set: #{missing.join(', ')}") unless missing.empty?

      values.values
    end

    def open_registrations(mode)
      raise Stop.new(2, "OWNER_REGISTRATIONS is #{mode}; it must be none or approved") unless %w(none approved).include?(mode)

      Setting.registrations_mode = mode unless Setting.registrations_mode == mode
    end

    def create(username, email, password, role)
      user = User.new(
        email: email,
        password: password,
        agreement: true,
        role: role,
        confirmed_at: Time.now.utc,
        bypass_registration_checks: true
      )
      user.account = Account.new(username: username)
      # The owner's address is the operator's own word. A home cluster without an answer from the mail domain's DNS must not fail on it.
      user.define_singleton_method(:validate_email_dns?) { false }
      raise refusal(user) unless user.save

      # Saving set `approved` from the registrations mode, which is closed here. Approved first, then confirmed once more, as tootctl does:
      # so the account goes through its first-time preparation, and nobody is mailed about a pending one.
      user.approved = true
      user.confirmed_at = nil
      user.mark_email_as_confirmed!
      'created'
    end

    def ensure_owner(account, role)
      user = account.user
      raise Stop.new(3, "@#{account.username} exists without a user; it cannot become the owner") if user.nil?

      warn "owner-account: @#{account.username} is disabled, and stays so" if user.disabled?
      user.role = role unless user.role_id == role.id
      user.approved = true unless user.approved?
      user.save! if user.changed?
      user.mark_email_as_confirmed! unless user.confirmed?
      'exists'
    end

    def refusal(user)
      taken = user.errors.any? { |error| error.type == :taken }
      Stop.new(taken ? 3 : 2, user.errors.full_messages.join(', '))
    end
  end
end

begin
  puts HomesteadOwner.call(ENV)
rescue HomesteadOwner::Stop => e
  warn "owner-account: #{e.message}"
  exit e.code
rescue ActiveRecord::ConnectionNotEstablished, ActiveRecord::NoDatabaseError => e
  warn "owner-account: the database is not ready: #{e.message}"
  exit 4
rescue ActiveRecord::StatementInvalid => e
  # A table that is not there yet is a database that is not ready; any other refused statement is a fault.
  raise unless e.cause.is_a?(PG::UndefinedTable)

  warn "owner-account: the database is not ready: #{e.message.lines.first&.strip}"
  exit 4
end
